// Sets the theme before the page is painted: the one chosen here, else the system's. A classic script, so that it blocks.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("patronus-theme");
    } catch {
      return null; // storage is off: the system's theme it is
    }
  };
  const apply = () => {
    document.documentElement.dataset.theme = chosen() ?? (dark.matches ? "dark" : "light");
  };
  dark.addEventListener("change", apply);
  apply();
})();
