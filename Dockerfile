# The sidecar image: a wheel built in one stage, a slim Python in the other, uid 1337, `tidegate` as entry point.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir maturin==1.16.0 \
 && cargo build --release --locked -p tidegate-bench \
 && install -s -D -t python/tidegate/bench/bin target/release/tg-load target/release/tg-backend target/release/tg-forward \
 && /venv/bin/maturin build --release --locked --out /wheels \
 && python3 tools/check_wheel.py /wheels/*.whl

FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends iptables && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 1337 istio-proxy && useradd --uid 1337 --gid 1337 --no-create-home istio-proxy \
 && install -d -o 1337 -g 1337 /etc/istio/proxy
COPY --from=build /wheels/*.whl /tmp/
RUN pip install --no-cache-dir /tmp/*.whl "$(ls /tmp/*.whl)[mesh]" && rm /tmp/*.whl
USER 1337:1337
ENTRYPOINT ["tidegate"]
CMD ["--help"]
