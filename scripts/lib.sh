# shellcheck shell=bash
# Shared by the scripts beside it; sourced, never run.

say() { printf '%s\n' "$*"; }

# die STATUS TEXT: the statuses are those of the program (README, docs).
die() {
  local status=$1
  shift
  printf '%s\n' "$*" >&2
  exit "$status"
}

need_value() { [ $# -ge 2 ] || die 2 "$1 needs a value"; }

# Prints the comment at the head of a script.
help_from_header() { awk 'NR > 1 && /^#/ { sub(/^# ?/, ""); print; next } NR > 1 { exit }' "$1"; }

# Runs a command as root: directly, or with sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die 2 "cannot run '$*': it needs root and there is no sudo; run it as root, then start this script again"
  fi
}

# Kilobytes this process may use: what is free now, or the limit of its control group when that is less.
memory_kb() {
  local free limit used
  free=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  if [ -r /sys/fs/cgroup/memory.max ] && [ "$(cat /sys/fs/cgroup/memory.max)" != max ]; then
    limit=$(($(cat /sys/fs/cgroup/memory.max) / 1024))
    used=0
    # Pages of files can be dropped; only the anonymous ones count.
    [ ! -r /sys/fs/cgroup/memory.stat ] || used=$(awk '$1 == "anon" { print int($2 / 1024) }' /sys/fs/cgroup/memory.stat)
    limit=$((limit - used))
    [ "$limit" -ge "$free" ] || free=$limit
  fi
  printf '%s\n' "$free"
}

# Compiler processes at a time: the processors this process may use, one under 6 GB, else one for each 2.5 GB.
build_jobs() {
  local cores memory jobs quota
  if [ -n "${ATTUNE_JOBS:-}" ]; then
    printf '%s\n' "$ATTUNE_JOBS"
    return
  fi
  cores=$(nproc)
  if [ -r /sys/fs/cgroup/cpu.max ]; then
    quota=$(awk '$1 != "max" { print int(($1 + $2 - 1) / $2) }' /sys/fs/cgroup/cpu.max)
    if [ -n "$quota" ] && [ "$quota" -ge 1 ] && [ "$quota" -lt "$cores" ]; then cores=$quota; fi
  fi
  memory=$(memory_kb)
  if [ "$memory" -lt 6000000 ]; then
    jobs=1
  else
    jobs=$((memory / 2500000))
    [ "$jobs" -le "$cores" ] || jobs=$cores
  fi
  printf '%s\n' "$jobs"
}

# shellcheck disable=SC2154
# An absolute path for a file named by the user, who stands in $caller, not in the repository root. "-" stays.
user_path() {
  case $1 in
    -|/*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$caller/$1" ;;
  esac
}
