#!/bin/bash
# Container 910, portainer: Portainer's server as a Docker container, on https port 9443.
#
# The data lies in the volume portainer_data, so running this again renews the server and
# keeps its users and settings.
set -euo pipefail
# shellcheck source=/dev/null
. /usr/local/lib/phoenix/layer.sh

readonly PORTAINER_IMAGE=portainer/portainer-ce:2.39.6
readonly PORTAINER_STATUS=https://127.0.0.1:9443/api/system/status

log "Starting ${PORTAINER_IMAGE}"
retry docker pull "$PORTAINER_IMAGE" || die "${PORTAINER_IMAGE} could not be pulled"
docker volume create portainer_data
docker rm -f portainer >/dev/null 2>&1 || true
docker run -d --name portainer --restart=always -p 9443:9443 \
    -v /var/run/docker.sock:/var/run/docker.sock -v portainer_data:/data "$PORTAINER_IMAGE"

log "Waiting for its answer"
for _ in {1..60}; do
    # It signs its own certificate until it is given one.
    if curl -fsSk --max-time 5 -o /dev/null "$PORTAINER_STATUS" 2>/dev/null; then
        log "Portainer answers; set the administrator's password within five minutes, at https://<address>:9443"
        exit 0
    fi
    sleep 2
done
docker logs --tail 20 portainer >&2 || true
die "Portainer did not answer on port 9443 within two minutes"
