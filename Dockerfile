# Both services, a target each: docker build --target bundoc . (or bunkms).
#
# No "# syntax=" line: it would fetch a builder from a registry, and nothing here needs one.

ARG NODE_IMAGE=node:24-slim
# The same with a compiler, for the target bunkms-outside alone.
ARG NODE_BUILD_IMAGE=node:24

FROM ${NODE_IMAGE} AS build
# The same pnpm as scripts/lib/workspace.mjs; a test compares the two.
RUN npm install --global pnpm@12.4.2
ENV CI=true
WORKDIR /src
# Everything that is downloaded depends on the lockfile alone, so that an edit of a source downloads nothing.
COPY pnpm-lock.yaml pnpm-workspace.yaml ./
RUN pnpm fetch --prod
COPY package.json tsconfig.base.json tsconfig.json ./
COPY packages packages
# Without a check of types, which "npm run check" makes: it is two thirds of the processor time of tsc.
RUN pnpm install --offline --frozen-lockfile --prod && pnpm exec tsc -b --noCheck && node packages/console/build.mjs && rm packages/*/dist/.tsbuildinfo
RUN for service in bunkms bundoc; do \
      pnpm --filter "@bundoc/$service" deploy --legacy --offline --prod "/out/$service" || exit 1; \
    done

# What both services' images are made of. The folders belong to the user, and so do the volumes that are
# mounted there first: a new volume takes over owner and mode of the folder it covers.
FROM ${NODE_IMAGE} AS runtime
ENV NODE_ENV=production
RUN set -e; for folder in bunkms bundoc kms-backups kms-kek kms-token authority bunkms-tls bundoc-tls; do \
      mkdir -p -m 700 "/var/lib/$folder"; chown 1000:1000 "/var/lib/$folder"; \
    done
WORKDIR /app
USER 1000:1000
# In production the services refuse to run with a debugger; this closes the door to one before they have
# begun.
CMD ["node", "--disable-sigusr1", "dist/main.js"]

FROM runtime AS bunkms
USER 0:0
RUN printf '#!/bin/sh\nexec node /app/dist/cli/main.js "$@"\n' > /usr/local/bin/bunkms && chmod 755 /usr/local/bin/bunkms
USER 1000:1000
ENV BUNKMS_DATA_DIR=/var/lib/bunkms
COPY --from=build /out/bunkms ./
EXPOSE 8081 8082

# Optional packages that reach outside keys. An image with the module of an HSM's vendor begins with
# bunkms-outside.
FROM ${NODE_BUILD_IMAGE} AS outside
WORKDIR /outside
# Against the headers of this image, instead of a download.
ENV npm_config_nodedir=/usr/local
RUN npm install --no-fund --no-audit pkcs11js@2.1.7 @aws-sdk/client-kms@3.1164.0

FROM bunkms AS bunkms-outside
# Node looks there after /app/node_modules.
COPY --from=outside /outside/node_modules /node_modules

FROM runtime AS bundoc
USER 0:0
RUN printf '#!/bin/sh\nexec node /app/dist/cli/main.js "$@"\n' > /usr/local/bin/bundoc && chmod 755 /usr/local/bin/bundoc
USER 1000:1000
ENV BUNDOC_DATA_DIR=/var/lib/bundoc
COPY --from=build /out/bundoc ./
EXPOSE 8080
