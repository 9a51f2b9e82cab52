# syntax=docker/dockerfile:1
# Tags move: a published image is built from digests (docs/operations.md, "Containers"). Both are of the same Debian.
ARG NODE_IMAGE=node:24-bookworm-slim
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build && chmod +x dist/cli.js

FROM ${NODE_IMAGE} AS modules
WORKDIR /app
COPY package.json package-lock.json ./
# optional: the PostgreSQL of the demo and the tests. Of a checkout without the other dependencies npm makes a bill of materials only once they are not named
RUN npm ci --omit=dev --omit=optional --no-audit --no-fund \
  && npm pkg delete devDependencies optionalDependencies \
  && npm sbom --sbom-format cyclonedx > sbom.json

FROM ${BASE_IMAGE}
ENV NODE_ENV=production HTTP_HOST=0.0.0.0
WORKDIR /app
COPY --from=modules /usr/local/bin/node /usr/local/bin/node
COPY --from=modules /app/node_modules node_modules
COPY --from=modules /app/sbom.json ./
COPY --from=build /app/dist dist
COPY package.json LICENSE README.md SECURITY.md CHANGELOG.md ./
COPY migrations migrations
COPY sql sql
COPY docs docs
RUN ln -s /app/dist/cli.js /usr/local/bin/smslogd
USER 65532:65532
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.HTTP_PORT || 9464}/healthz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["smslogd"]
CMD ["run"]
