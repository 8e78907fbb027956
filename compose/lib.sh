#!/usr/bin/env bash
# What the scripts in compose/ share: settings, messages, packages, the build, and the processes of the
# demo cluster. Sourced, never run by itself. State lives in two folders that git ignores:
#   run/   NAME.pid, NAME.address, NAME.log of each process, and the logs of the build and of apt-get
#   data/  what the storage nodes keep
# shellcheck disable=SC2034  # The settings are for the scripts that source this.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUN=${CLUSTER_RUN_DIR:-$ROOT/run}
DATA=${CLUSTER_DATA_DIR:-$ROOT/data}
read -ra NODE_PORTS <<<"${CLUSTER_NODE_PORTS:-7001 7002 7003}"
ROUTER_PORT=${CLUSTER_ROUTER_PORT:-8080}
REPLICATOR_PORT=${CLUSTER_REPLICATOR_PORT:-9090}
BUILD=${CLUSTER_BUILD:-release}
READY_SECONDS_MAX=${CLUSTER_READY_SECONDS:-60}
STOP_SECONDS_MAX=${CLUSTER_STOP_SECONDS:-30}

# In the order in which they start; they stop in the reverse order.
ROLES=(node-1 node-2 node-3 replicator router)
PROGRAMS=(storage-node router replicator kv)

# git and the C++ compiler are what SwiftPM fetches and builds the dependencies with.
PACKAGES=(librocksdb-dev libcurl4-openssl-dev curl ca-certificates git g++)

SETTINGS_HELP='Settings, from the environment:
  CLUSTER_NODE_PORTS       ports of the three storage nodes   (7001 7002 7003);
                           data written with other ports is refused, as nodes are known by their addresses
  CLUSTER_ROUTER_PORT      port of the router                 (8080)
  CLUSTER_REPLICATOR_PORT  port of the replicator             (9090)
  CLUSTER_DATA_DIR         what the storage nodes keep        (data)
  CLUSTER_RUN_DIR          pids and logs                      (run)
  CLUSTER_BUILD            release or debug                   (release)
  CLUSTER_READY_SECONDS    longest wait for a process to start (60)
  CLUSTER_STOP_SECONDS     longest wait for one to stop       (30)'

# ---- messages ------------------------------------------------------------------------------------------

BOLD='' RED='' GREEN='' CLEAR=''
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' CLEAR=$'\e[0m'
fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$BOLD" "$*" "$CLEAR"; }
fail() {
    printf '%s%s%s\n' "$RED" "${0##*/}: $*" "$CLEAR" >&2
    exit 1
}

# Prints the comment at the top of the calling script, then the settings.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p }' "$0"
    printf '\n%s\n' "$SETTINGS_HELP"
}

# ---- what must be on the machine -----------------------------------------------------------------------

# Installs those of the named Debian packages that are missing.
require_packages() {
    command -v apt-get >/dev/null ||
        fail "this needs Debian or Ubuntu (apt-get): elsewhere install RocksDB, libcurl and curl, then run 'swift build -c release'"
    local missing=() package as_root=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null ||
            fail "missing packages, and no right to install them: sudo apt-get update && sudo apt-get install -y ${missing[*]}"
        as_root=(sudo -n)
    fi
    say "Installing ${missing[*]}"
    mkdir -p "$RUN"
    if ! {
        ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
            ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -q --no-install-recommends "${missing[@]}"
    } </dev/null >"$RUN/apt.log" 2>&1; then
        grep -E '^(E|Err|W):?' "$RUN/apt.log" >&2 || tail -n 5 "$RUN/apt.log" >&2
        fail "apt-get could not install ${missing[*]}; its whole output is in $RUN/apt.log"
    fi
}

require_swift() {
    command -v swift >/dev/null ||
        fail "swift was not found: install Swift 6.1 or newer (https://www.swift.org/install/linux/) and put it in PATH"
    local version
    version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9]+\.[0-9]+).*/\1/p' | head -n 1)
    [[ $version =~ ^([0-9]+)\.([0-9]+)$ ]] || fail "'swift --version' did not name a version"
    ((BASH_REMATCH[1] > 6 || (BASH_REMATCH[1] == 6 && BASH_REMATCH[2] >= 1))) ||
        fail "Swift $version is too old: Swift 6.1 or newer is needed (https://www.swift.org/install/linux/)"
}

# How the programs that run are built. Asked for when the packages are there.
release_options() { mapfile -t RELEASE_OPTIONS < <("$ROOT/compose/release-options"); }

# ---- the build -----------------------------------------------------------------------------------------

# Turns the output of 'swift build' into one line that moves, on a terminal; into nothing elsewhere.
show_progress() {
    local line
    while IFS= read -r line; do
        if [[ -t 1 && $line =~ ^\[([0-9]+)/([0-9]+)\] ]]; then
            printf '\r%s %s/%s\e[K' "$1" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
        fi
    done
    if [[ -t 1 ]]; then printf '\r\e[K'; fi
}

# Runs 'swift build' with the given arguments; shows the compiler's errors where it fails.
build() {
    local what=$1 started=$SECONDS log=$RUN/build.log
    shift
    mkdir -p "$RUN"
    [[ -t 1 ]] || say "Building $what; the output goes to $log"
    if ! swift build --package-path "$ROOT" "$@" </dev/null 2>&1 | tee "$log" | show_progress "Building $what"; then
        grep -E '^([^ ].*: )?(fatal )?error: ' "$log" | sed "s|^$ROOT/||" | sort -u | head -n 20 >&2 || tail -n 20 "$log" >&2
        fail "the build failed; its whole output is in $log"
    fi
    say "Built $what in $((SECONDS - started)) s"
}

binary_folder() { swift build --package-path "$ROOT" -c "$BUILD" --show-bin-path; }

# ---- processes -----------------------------------------------------------------------------------------

# The port that the settings give a role.
port_of() {
    case $1 in
    node-*) say "${NODE_PORTS[${1#node-} - 1]}" ;;
    router) say "$ROUTER_PORT" ;;
    replicator) say "$REPLICATOR_PORT" ;;
    esac
}

program_of() {
    case $1 in
    node-*) say storage-node ;;
    *) say "$1" ;;
    esac
}

# The process id of a role, where it runs. A pid alone proves nothing after a crash and a reboot: the process
# must also run this repository's program.
pid_of() {
    local pid program
    pid=$(cat "$RUN/$1.pid" 2>/dev/null) || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    program=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    # The kernel adds this once a new build has replaced the file.
    program=${program% (deleted)}
    [[ $program == "$(readlink -f "$ROOT")"/.build/*/"$(program_of "$1")" ]] || return 1
    say "$pid"
}

# Where a running role listens: what it was started with, not what the settings say now.
address_of() { cat "$RUN/$1.address" 2>/dev/null || say "127.0.0.1:$(port_of "$1")"; }

# Says which process listens on a port; fails where none does.
listener_on() {
    local inode pid
    inode=$(awk -v port="$(printf ':%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10; exit }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    [[ -n $inode ]] || return 1
    # Only root sees the sockets of other users' processes.
    pid=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d/ -f3) || true
    if [[ -n $pid ]]; then say "$(cat "/proc/$pid/comm") (pid $pid)"; else say 'a process of another user'; fi
}

require_free_port() {
    local holder variable
    if holder=$(listener_on "$(port_of "$1")"); then
        case $1 in
        node-*) variable=CLUSTER_NODE_PORTS ;;
        router) variable=CLUSTER_ROUTER_PORT ;;
        *) variable=CLUSTER_REPLICATOR_PORT ;;
        esac
        fail "port $(port_of "$1"), for $1, is in use by $holder: stop it, or set $variable to something else"
    fi
}

# Starts one role in a session of its own, so that it outlives this terminal.
start_role() {
    local role=$1 program address
    shift
    program=$(program_of "$role")
    address=127.0.0.1:$(port_of "$role")
    [[ ! -f $RUN/$role.log ]] || mv -f "$RUN/$role.log" "$RUN/$role.log.1"
    (
        ulimit -Sn "$(ulimit -Hn)"
        exec setsid "$BINARIES/$program" --config "$CONFIGURATION" --listen "$address" "$@" \
            </dev/null >"$RUN/$role.log" 2>&1 9>&-
    ) &
    say $! >"$RUN/$role.pid"
    # The shell is not to comment on its end: wait_ready does that.
    disown
    say "$address" >"$RUN/$role.address"
}

# Waits until a role answers that it is ready; shows the end of its log where it does not.
wait_ready() {
    local role=$1 address deadline reason=''
    address=$(address_of "$role")
    deadline=$((SECONDS + READY_SECONDS_MAX))
    until curl -fs -m 2 -o /dev/null "http://$address/readyz"; do
        if ! kill -0 "$(cat "$RUN/$role.pid")" 2>/dev/null; then
            reason='ended instead of starting'
        elif ((SECONDS >= deadline)); then
            reason="was not ready after $READY_SECONDS_MAX seconds"
        fi
        if [[ -n $reason ]]; then
            tail -n 15 "$RUN/$role.log" | sed 's/^/  /' >&2
            fail "$role $reason; the end of $RUN/$role.log is above"
        fi
        sleep 0.1
    done
}

# Waits until the router sees every node alive: after a restart it may still remember one as dead.
wait_routed() {
    local deadline=$((SECONDS + READY_SECONDS_MAX))
    while curl -fs -m 2 "http://$(address_of router)/status" | grep -q '"healthy":false'; do
        ((SECONDS < deadline)) || fail "the router does not reach every node; see $RUN/router.log"
        sleep 0.1
    done
}

# Stops the named roles: SIGTERM to all, and SIGKILL to what is left when the time is over.
stop_roles() {
    local role pid deadline left=()
    for role in "$@"; do
        if pid=$(pid_of "$role"); then
            kill -TERM "$pid" 2>/dev/null || true
            left+=("$role")
        fi
    done
    deadline=$((SECONDS + STOP_SECONDS_MAX))
    for role in ${left[@]+"${left[@]}"}; do
        while pid=$(pid_of "$role"); do
            if ((SECONDS >= deadline)); then
                say "$role (pid $pid) did not stop within $STOP_SECONDS_MAX seconds: killing it"
                kill -KILL "$pid" 2>/dev/null || true
                deadline=$((SECONDS + 5))
            fi
            sleep 0.05
        done
    done
    for role in "$@"; do rm -f "$RUN/$role.pid" "$RUN/$role.address"; done
}

# One line for each process; fails where one is not ready.
show_processes() {
    local role pid state colour all_ready=0
    for role in "${ROLES[@]}"; do
        if ! pid=$(pid_of "$role"); then
            pid=- state=stopped colour=$RED all_ready=1
        elif curl -fs -m 2 -o /dev/null "http://$(address_of "$role")/readyz"; then
            state=ready colour=$GREEN
        else
            state='not ready' colour=$RED all_ready=1
        fi
        printf '  %-11s %-16s pid %-8s %s%s%s\n' "$role" "$(address_of "$role")" "$pid" "$colour" "$state" "$CLEAR"
    done
    return "$all_ready"
}

# Keeps a second 'up' or 'down' out while one is at work.
take_lock() {
    mkdir -p "$RUN"
    exec 9>"$RUN/lock"
    flock -n 9 || fail "another compose/up or compose/down is at work in $RUN"
}
