# Tags move, digests do not: an image is built again from the same base (docs/operations.md, "Containers").
FROM node:26.10.0-bookworm-slim@sha256:662933cf47f013bc8e4beb31a6116448427a82057ba7c42c97e4c5ba766504c2 AS base

FROM base AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY .ci/build.js .ci/
COPY src src
RUN npm run build && chmod +x dist/cli.js

FROM base AS modules
WORKDIR /app
COPY package.json package-lock.json ./
# optional: the PostgreSQL of the demo and the tests. Of a checkout without the other dependencies npm makes a bill of materials only once they are not named
RUN npm ci --omit=dev --omit=optional --no-audit --no-fund \
  && npm pkg delete devDependencies optionalDependencies \
  && npm sbom --sbom-format cyclonedx > sbom.json

# Node.js 26 needs libatomic1, which Debian's own slim image lacks
FROM base
RUN rm -r /usr/local/lib/node_modules /usr/local/include && find /usr/local/bin -xtype l -delete
ENV NODE_ENV=production HTTP_HOST=0.0.0.0
WORKDIR /app
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
  CMD ["node", "-e", "const { HTTP_HOST: host, HTTP_PORT: port } = process.env; fetch(`http://${['', '0.0.0.0', '::'].includes(host) ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host}:${port || 9464}/healthz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["smslogd"]
CMD ["run"]
