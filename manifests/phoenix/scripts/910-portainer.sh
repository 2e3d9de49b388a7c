#!/bin/bash
# Container 910, portainer: Portainer's server as a Docker container, on https port 9443.
#
# The data lies in the volume portainer_data, so a changed PORTAINER_IMAGE renews the server and
# keeps its users and settings. A server that runs and answers is left alone.
set -euo pipefail
# shellcheck source=/dev/null
. /usr/local/lib/phoenix/layer.sh

readonly PORTAINER_IMAGE=portainer/portainer-ce:2.39.6
readonly PORTAINER_STATUS=https://127.0.0.1:9443/api/system/status

# It signs its own certificate until it is given one.
answers() {
    curl -fsSk --max-time 5 -o /dev/null "$PORTAINER_STATUS" 2>/dev/null
}

if [[ "$(docker inspect --format '{{.Config.Image}}' portainer 2>/dev/null)" == "$PORTAINER_IMAGE" ]] && answers; then
    log "${PORTAINER_IMAGE} answers already"
    exit 0
fi

log "Starting ${PORTAINER_IMAGE}"
retry docker pull "$PORTAINER_IMAGE" || die "${PORTAINER_IMAGE} could not be pulled"
docker volume create portainer_data
docker rm -f portainer >/dev/null 2>&1 || true
docker run -d --name portainer --restart=always -p 9443:9443 \
    -v /var/run/docker.sock:/var/run/docker.sock -v portainer_data:/data "$PORTAINER_IMAGE"

log "Waiting for its answer"
for _ in {1..60}; do
    if answers; then
        log "Portainer answers; set the administrator's password within five minutes, at https://<address>:9443"
        exit 0
    fi
    sleep 2
done
docker logs --tail 20 portainer >&2 || true
die "Portainer did not answer on port 9443 within two minutes"
