# One image for every service; its first argument names the service. They share Node and nearly all dependencies, so that an
# image of their own for each would make every node pull the same bytes several times (figures in docs/operations.md).

FROM node:26-slim AS manifests
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY packages packages
COPY services services
COPY cli cli
COPY deploy/image/manifests.ts ./
RUN node manifests.ts /manifests && cp package-lock.json .npmrc /manifests

FROM node:26-slim AS dependencies
WORKDIR /app
COPY --from=manifests /manifests ./
# Declarations, source maps and pages are a third of the bytes, and nothing reads them. Licences stay, some of which are such pages.
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts \
 && find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.md' \) ! -iname 'licen[sc]e*' ! -iname 'notice*' ! -iname 'copying*' -delete

FROM node:26-slim
WORKDIR /app
# Node does not run TypeScript below node_modules: packages and services stay where the links of the workspaces point.
COPY --from=dependencies /app ./
COPY LICENSE deploy/image/health-check.ts ./
COPY packages packages
COPY services services
COPY cli cli
COPY deploy/image/llm-gateway /usr/local/bin/
RUN install -d -o 1000 -g 1000 /var/cache/node
USER 1000:1000
ENV NODE_ENV=production NODE_COMPILE_CACHE=/var/cache/node
# Starts each once: an image in which one cannot start is never built, and what V8 compiled is kept. It halves the CPU time of a start.
RUN for service in services/*; do llm-gateway "${service#services/}" --version || exit 1; done
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="llm-gateway" \
      org.opencontainers.image.description="A gateway in front of fleets of LLM inference engines, built as small services over NATS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENV LLM_GATEWAY_REVISION="$REVISION"
EXPOSE 8089 9090
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["node", "/app/health-check.ts"]
ENTRYPOINT ["llm-gateway"]
CMD ["standalone"]
