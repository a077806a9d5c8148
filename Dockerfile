# syntax=docker/dockerfile:1
# The operator's image: one static binary, CA certificates and nothing else.
#
#   docker build -t localhost/laurel:0.1.0 .
#
# It builds for the platform that it runs on; `docker buildx build --platform linux/amd64,linux/arm64` builds for both.
FROM rust:1.95-bookworm AS build
WORKDIR /laurel
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
# A named target keeps crt-static away from build scripts and procedural macros, which cannot be static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/laurel/target,sharing=locked \
    target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin laurel --target "$target" \
    && cp "target/$target/release/laurel" /usr/local/bin/laurel

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/bin/laurel /laurel
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/laurel"]
CMD ["run"]
