# In place of images that cannot be pulled: the same programs from Debian's packages, started the same way.
# Starts from what `tests.compose.images` makes with debootstrap.
ARG DEBIAN_IMAGE
FROM ${DEBIAN_IMAGE} AS debian
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq

FROM debian AS redis
RUN apt-get install -y -qq --no-install-recommends redis-server >/dev/null
CMD ["redis-server"]

FROM debian AS proxy
RUN apt-get install -y -qq --no-install-recommends haproxy >/dev/null
CMD ["haproxy"]

FROM debian AS prometheus
RUN apt-get install -y -qq --no-install-recommends prometheus >/dev/null \
    && install --directory --owner 65534 --group 65534 /prometheus
USER 65534
ENTRYPOINT ["prometheus"]
