# The image: one static binary, the certificate authorities, nothing else.
#
#   docker build -t media3watch-backend \
#     --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse --short=12 HEAD)" .
#
# It needs DATABASE_URL: the built-in Postgres is not for containers.

# Alpine's Rust targets musl, which links statically by default.
FROM rust:1.95-alpine AS build

# zstd, liblzma, mimalloc and ring compile C and assembler; nothing is taken
# from the system but the C library and the list of certificate authorities.
RUN apk add --no-cache binutils ca-certificates gcc musl-dev

WORKDIR /build

# The dependencies alone, against an empty crate: this layer is rebuilt only
# when they change.
COPY Cargo.toml Cargo.lock ./
COPY tls tls
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src

COPY . .
ARG REVISION=unknown
# COPY keeps file times, which may be older than the empty crate's: touch, or
# cargo would keep that. A binary that asks for a program interpreter is not
# static and could not start in the empty image: better to fail here.
RUN touch src/main.rs src/lib.rs \
    && M3W_REVISION="$REVISION" cargo build --release --locked --bin media3watch \
    && if readelf -lW target/release/media3watch | grep -q INTERP; then \
         echo 'target/release/media3watch is not linked statically' >&2; exit 1; \
       fi

RUN mkdir -p /image/etc/ssl/certs \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'media3watch:x:65532:65532:media3watch:/:/sbin/nologin' > /image/etc/passwd \
    && echo 'media3watch:x:65532:' > /image/etc/group \
    && cp target/release/media3watch /image/media3watch


FROM scratch

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Media3Watch backend" \
      org.opencontainers.image.description="Playback quality backend for Android Media3: session reports into PostgreSQL, dashboards in Grafana" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/media3watch/media3watch-backend" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

COPY --from=build /image/ /

# A number, because Kubernetes' runAsNonRoot cannot check a name.
USER 65532:65532
EXPOSE 8080

# Without a shell in the image, the binary asks itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/media3watch", "healthcheck"]

ENTRYPOINT ["/media3watch"]
