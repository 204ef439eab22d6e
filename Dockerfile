# Two small images from one build:
#
#   docker build --target api -t orders-api .
#   docker build --target worker -t orders-worker .
#
# No database is needed to build: the queries are checked against the committed `.sqlx`. Any Docker since 20.10 builds it, with
# BuildKit or without: there is no `# syntax` line, whose frontend would have to be pulled, and nothing that needs a newer one.

# `.ci/pin-bases` writes the digests of the base images beside their tags; a release is not built without them.

# An SBOM of the image alone would know no crate, since a program does not list its own. BuildKit scans what is sent to it as
# well, and so Cargo.lock.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

# ---------------------------------------------------------------------------------------------------------------------
# The compiler. `slim` has the C compiler that aws-lc wants; nothing else is installed. Same Debian as the runtime image,
# so that the binaries find the libc they were linked with.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
ENV CARGO_INCREMENTAL=0 \
    SQLX_OFFLINE=true
# A profile of Cargo.toml: `dist` takes longest and runs fastest. For a quick look: `--build-arg PROFILE=dev`.
ARG PROFILE=dist

# The dependencies, in a layer that changes only with a manifest: they are built for empty sources, then what was built
# of the workspace itself is removed, so that no stub can be taken for the real thing whatever the files' times are.
# Every member's is here because `--locked` compares the lock file with all manifests.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY api/Cargo.toml api/
COPY bench/Cargo.toml bench/
COPY e2e/Cargo.toml e2e/
COPY models/Cargo.toml models/
COPY shared/Cargo.toml shared/
COPY testbed/Cargo.toml testbed/
COPY worker/Cargo.toml worker/
COPY xtask/Cargo.toml xtask/
RUN for manifest in */Cargo.toml; do \
        mkdir "${manifest%Cargo.toml}src" && touch "${manifest%Cargo.toml}src/lib.rs" || exit 1; \
    done \
    && echo 'fn main() {}' > api/src/main.rs \
    && echo 'fn main() {}' > worker/src/main.rs \
    && cargo build --profile "$PROFILE" --locked -p api -p worker \
    && cargo clean --profile "$PROFILE" -p shared -p api -p worker

# Our own code. Of the other members the stubs remain: neither program depends on them.
COPY .sqlx .sqlx
COPY migrations migrations
COPY shared shared
COPY api api
COPY worker worker
# The profile `dev` has a folder of another name.
RUN cargo build --profile "$PROFILE" --locked -p api -p worker \
    && install -D -t /programs target/*/api target/*/worker

# ---------------------------------------------------------------------------------------------------------------------
FROM busybox:1.37.0-musl AS busybox

# What runs the programs: libc, libgcc, CA certificates, a user without rights, and no shell or package manager to be
# misused. The tag has no version, hence the digest.
FROM gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f AS runtime
# The health checks need a client, and there is none here. busybox is what its file is called: as `wget` it is one static
# megabyte that does only that. A sub-command of our own would be code to maintain, and a Debian image with a shell
# three times the size.
COPY --from=busybox /bin/busybox /bin/wget
USER 65532:65532

# ---------------------------------------------------------------------------------------------------------------------
FROM runtime AS worker
LABEL org.opencontainers.image.title="orders-worker" \
      org.opencontainers.image.description="Consumes order events: history and cache" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /programs/worker /usr/local/bin/worker
# Inside a container the default, loopback, cannot be reached from outside. It is published only if you do so.
ENV METRICS_ADDR=0.0.0.0:9091
EXPOSE 9091
# Asks the port above; a container with another METRICS_ADDR brings its own check.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["/bin/wget", "-q", "-T", "2", "-O", "/dev/null", "http://127.0.0.1:9091/health/ready"]
ENTRYPOINT ["/usr/local/bin/worker"]
CMD ["run"]

# ---------------------------------------------------------------------------------------------------------------------
# The last stage, and so what `docker build .` makes.
FROM runtime AS api
LABEL org.opencontainers.image.title="orders-api" \
      org.opencontainers.image.description="Orders over REST, and the relay of their events" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /programs/api /usr/local/bin/api
# Inside a container loopback, the default with DEBUG=true, cannot be reached from outside.
ENV HOST=0.0.0.0 \
    METRICS_ADDR=0.0.0.0:9090
EXPOSE 8000 9090
# Asks the default PORT; a container with another one brings its own check.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["/bin/wget", "-q", "-T", "2", "-O", "/dev/null", "http://127.0.0.1:8000/api/v1/health/ready"]
ENTRYPOINT ["/usr/local/bin/api"]
CMD ["serve"]
