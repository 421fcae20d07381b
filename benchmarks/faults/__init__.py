"""What happens to requests when something breaks: real processes, real sockets, and every answer judged."""
