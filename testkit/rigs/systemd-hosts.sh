#!/usr/bin/env bash
# Boots N Debian hosts, each with systemd as PID 1, its own network namespace, its own small ext4 disk
# and sshd, all from one shared image; and injects faults into them. Needs root and the Debian packages
# systemd-container debootstrap iproute2 nftables openssh-client e2fsprogs procps xfsprogs (for xfs_io).
# Works where systemd is not running on the machine itself (run there, on hybrid cgroup v1); the branches for
# a machine booted with systemd, and for cgroup v2, are written but have not been run.
set -euo pipefail

STATE=${STATE:-}                             # disks, keys, logs; `up` makes one when empty and prints it
IMAGE=${IMAGE:-}                             # shared read-only root file system; default $STATE/image
SUITE=${SUITE:-bookworm}
MIRROR=${MIRROR:-}                           # debootstrap's own default when empty
PACKAGES=${PACKAGES:-systemd,systemd-sysv,dbus,openssh-server,python3,python3-apt,iproute2,sudo,ca-certificates,postgresql,caddy}
NET=${NET:-198.18.77}                        # /24 inside the hub namespace only; nothing routes out of it
ALIASES=${ALIASES:-}                         # names beside h1, h2 …: "h1=web1.example h2=db1.example"
DISK_MB=${DISK_MB:-1024}                     # sparse; size of each host's writable layer
LOGIN=${LOGIN:-ops}                          # unprivileged login with passwordless sudo
BOOT_SECONDS=${BOOT_SECONDS:-60}

usage() {
  cat <<'USAGE'
usage: systemd-hosts.sh COMMAND            (STATE=dir names a running set, as printed by `up`)
  image              build the shared image unless it is there
  up N               boot hosts h1..hN; prints STATE=dir
  down               kill, unmount and remove everything of this set
  list               name, address, PID of the host's init, state
  inventory          Ansible inventory (INI) for the hosts
  hub CMD...         run CMD in the hub namespace, from which the hosts are reached
  exec NAME CMD...   run CMD as root inside a host, without ssh
  ssh NAME [CMD...]  the same over ssh, as the login user
  cut NAME | heal NAME            unplug / replug the host's network cable
  lossy NAME PERCENT | heal NAME  drop that share of packets, both ways
  slow NAME RATE | heal NAME      limit bandwidth, e.g. 256kbit
  fill NAME | unfill NAME         leave no free block on the host's disk
  kill NAME          SIGKILL every process of the host (kernel keeps the page cache)
  powerloss NAME     drop unsynced writes, then SIGKILL: what was not fsynced is gone
  start NAME         boot a killed host again from its disk
  clone NAME OTHER   give OTHER a copy of NAME's disk; both have to be down
USAGE
}

die() { printf 'systemd-hosts: %s\n' "$*" >&2; exit 1; }

# ---- helpers -----------------------------------------------------------------------------------

# Names namespaces and cgroups. A set has one of its own, so that what a killed run left behind, of another
# checkout perhaps, is in nobody's way.
PREFIX=it$$
if [[ -e $STATE/prefix ]]; then PREFIX=$(cat "$STATE/prefix"); fi

hub_ns() { printf '%s-hub' "$PREFIX"; }
host_ns() { printf '%s-%s' "$PREFIX" "$1"; }
host_dir() { printf '%s/hosts/%s' "$STATE" "$1"; }
names() { # NAME: its alias first, which makes it the host's full name
  local pair
  for pair in $ALIASES; do if [[ ${pair%%=*} == "$1" ]]; then printf '%s ' "${pair#*=}"; fi; done
  printf '%s' "$1"
}
address() { printf '%s.%d' "$NET" $((10 + ${1#h})); }
hosts() { find "$STATE/hosts" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort -V; }

need_state() {
  [[ -n $STATE && -d $STATE ]] || die "STATE must name the folder that 'up' printed"
  IMAGE=${IMAGE:-$STATE/image}
}

need_host() { [[ -n ${1:-} && -d $(host_dir "$1") ]] || die "no host '${1:-}'; known: $(hosts | xargs)"; }

# PID of the host's systemd-nspawn, or nothing when it is down; a file may tell of a PID that is another's by now.
supervisor_pid() {
  local pid
  pid=$(cat "$(host_dir "$1")/pid" 2>/dev/null) || return 0
  if grep -qsz "^--machine=$PREFIX-$1\$" "/proc/$pid/cmdline"; then printf '%s' "$pid"; fi
}

# PID (outside) of the host's init, or nothing when it is down.
init_pid() {
  local supervisor pid
  supervisor=$(supervisor_pid "$1")
  [[ -n $supervisor ]] || return 0
  for pid in $(pgrep --parent "$supervisor"); do
    if grep -qsE '^NSpid:.*\s1$' "/proc/$pid/status"; then printf '%s' "$pid"; fi
  done
}

inside() { # NAME CMD...
  local pid; pid=$(init_pid "$1"); [[ -n $pid ]] || die "$1 is down"; shift
  nsenter --target "$pid" --all -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LANG=C.UTF-8 "$@"
}

# One line for each cgroup hierarchy this process is in: DIR-of-own-cgroup
own_cgroups() {
  local id controllers path mount
  while IFS=: read -r id controllers path; do
    if [[ $id == 0 ]]; then
      mount=$(findmnt -rno TARGET -t cgroup2 | head -n1)
    else
      mount=$(findmnt -rno TARGET,OPTIONS -t cgroup |
        awk -v want="${controllers}" '{ n = split($2, o, ","); for (i = 1; i <= n; i++) if (index("," want ",", "," o[i] ",") || o[i] == want) { print $1; exit } }')
    fi
    if [[ -n $mount && -w $mount ]]; then printf '%s\n' "${mount}${path%/}"; fi
  done </proc/self/cgroup
}

make_cgroups() { # NAME: prints the new folders
  local base dir file
  while read -r base; do
    dir=$base/$PREFIX-$1
    mkdir -p "$dir"
    for file in cpuset.cpus cpuset.mems; do   # v1: an empty cpuset takes no process
      if [[ -e $base/$file && -z $(cat "$dir/$file") ]]; then cat "$base/$file" >"$dir/$file"; fi
    done
    printf '%s\n' "$dir"
  done < <(own_cgroups)
}

remove_cgroups() { # NAME
  local base dir
  while read -r base; do
    dir=$base/$PREFIX-$1
    if [[ -d $dir ]]; then find "$dir" -depth -type d -exec rmdir {} +; fi
  done < <(own_cgroups)
}

# ---- image -------------------------------------------------------------------------------------

build_image() {
  [[ $(cat "$IMAGE/.complete" 2>/dev/null) == "$SUITE $PACKAGES" ]] && return
  rm -rf "$IMAGE"
  debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$IMAGE" ${MIRROR:+"$MIRROR"} >"$STATE/debootstrap.log" 2>&1 ||
    die "debootstrap failed: see $STATE/debootstrap.log"
  rm -f "$IMAGE"/etc/hostname "$IMAGE"/etc/ssh/ssh_host_* "$IMAGE"/var/cache/apt/archives/*.deb
  : >"$IMAGE/etc/machine-id"                  # each host makes its own
  # The programs are wanted, not the cluster that Debian makes of them.
  rm -rf "$IMAGE"/etc/postgresql/* "$IMAGE"/var/lib/postgresql/*/main
  chroot "$IMAGE" useradd --create-home --shell /bin/bash --groups sudo "$LOGIN"
  printf '%s ALL=(ALL) NOPASSWD: ALL\n' "$LOGIN" >"$IMAGE/etc/sudoers.d/$LOGIN"
  printf 'UseDNS no\nPasswordAuthentication no\n' >"$IMAGE/etc/ssh/sshd_config.d/test.conf"
  rm -f "$IMAGE"/etc/systemd/system/multi-user.target.wants/{postgresql,caddy}.service
  chroot "$IMAGE" systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    systemd-firstboot.service console-getty.service getty.target
  # As PID 1, before systemd: nspawn mounts cgroup v1 controllers read-only, so that MemoryMax= and
  # CPUQuota= would be ignored; the host has cgroups of its own, so it may write there.
  cat >"$IMAGE/usr/sbin/test-init" <<'INIT'
#!/bin/sh
for m in /sys/fs/cgroup/*/; do
  case $m in */unified/ | */systemd/) continue ;; esac
  grep -q " ${m%/} cgroup " /proc/mounts && mount -o remount,bind,rw "${m%/}"
done
exec /lib/systemd/systemd
INIT
  chmod 755 "$IMAGE/usr/sbin/test-init"
  printf '%s\n' "$SUITE $PACKAGES" >"$IMAGE/.complete"
}

# ---- life of a host ----------------------------------------------------------------------------

make_network() {
  ip netns add "$(hub_ns)"
  ip -n "$(hub_ns)" link set lo up
  ip -n "$(hub_ns)" link add hub type bridge
  ip -n "$(hub_ns)" address add "$NET.1/24" dev hub
  ip -n "$(hub_ns)" link set hub up
  # What `ip netns exec` shows as /etc/hosts in there.
  mkdir -p "/etc/netns/$(hub_ns)"
  { printf '127.0.0.1 localhost\n'; address_book; } >"/etc/netns/$(hub_ns)/hosts"
}

address_book() {
  local i
  for ((i = 1; i <= COUNT; i++)); do printf '%s %s\n' "$(address "h$i")" "$(names "h$i")"; done
}

make_host() { # NAME
  local dir ids i; dir=$(host_dir "$1")
  mkdir -p "$dir/disk" "$dir/root"
  truncate -s "${DISK_MB}M" "$dir/disk.img"
  mkfs.ext4 -q -F -m 0 "$dir/disk.img"
  mount -o loop "$dir/disk.img" "$dir/disk"
  mkdir -p "$dir/disk/upper/etc" "$dir/disk/upper/home/$LOGIN/.ssh" "$dir/disk/work"
  printf '%s\n' "$1" >"$dir/disk/upper/etc/hostname"
  { printf '127.0.0.1 localhost\n%s.1 collector\n' "$NET"
    address_book; } >"$dir/disk/upper/etc/hosts"
  install -m 600 "$STATE/id.pub" "$dir/disk/upper/home/$LOGIN/.ssh/authorized_keys"
  ids=$(awk -F: -v u="$LOGIN" '$1 == u {print $3 ":" $4}' "$IMAGE/etc/passwd")
  chown -R "$ids" "$dir/disk/upper/home/$LOGIN"; chmod 700 "$dir/disk/upper/home/$LOGIN/.ssh"
  mkdir -p "$dir/disk/upper/etc/ssh"
  ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$dir/disk/upper/etc/ssh/ssh_host_ed25519_key"
  printf '%s,%s %s\n' "$(address "$1")" "$(names "$1" | tr ' ' ',')" "$(cut -d' ' -f1,2 "$dir/disk/upper/etc/ssh/ssh_host_ed25519_key.pub")" >>"$STATE/known_hosts"
  umount "$dir/disk"
}

plug() { # NAME: network namespace and cable to the hub
  ip netns add "$(host_ns "$1")"
  ip link add eth0 netns "$(host_ns "$1")" type veth peer name "$1" netns "$(hub_ns)"
  ip -n "$(hub_ns)" link set "$1" master hub up
  ip -n "$(host_ns "$1")" link set lo up
  ip -n "$(host_ns "$1")" address add "$(address "$1")/24" dev eth0
  ip -n "$(host_ns "$1")" link set eth0 up
  ip -n "$(host_ns "$1")" route add default via "$NET.1"
}

start_host() { # NAME: returns at once; wait_host waits
  local dir group groups=(); dir=$(host_dir "$1")
  [[ -z $(init_pid "$1") ]] || die "$1 is up"
  mountpoint -q "$dir/disk" || mount -o loop "$dir/disk.img" "$dir/disk"
  mountpoint -q "$dir/root" ||
    mount -t overlay "$PREFIX-$1" -o "lowerdir=$IMAGE,upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$dir/root"
  [[ -e /run/netns/$(host_ns "$1") ]] || plug "$1"
  local args=(--quiet --register=no --directory="$dir/root" --machine="$PREFIX-$1" --hostname="$1"
    --network-namespace-path="/run/netns/$(host_ns "$1")" --resolv-conf=off --timezone=off
    --link-journal=no --console=pipe --kill-signal=SIGRTMIN+3
    --capability=CAP_BPF --capability=CAP_PERFMON --system-call-filter=bpf)   # IPAddressDeny= is a BPF program
  [[ -d /run/systemd/system ]] || args+=(--keep-unit)
  if [[ ! -d /run/systemd/system ]]; then mapfile -t groups < <(make_cgroups "$1"); fi
  (
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    exec setsid systemd-nspawn "${args[@]}" /usr/sbin/test-init </dev/null >>"$dir/console.log" 2>&1
  ) &
  echo $! >"$dir/pid"
}

answers_ssh() { # NAME
  ip netns exec "$(hub_ns)" ssh-keyscan -T 1 -t ed25519 "$(address "$1")" 2>/dev/null | grep -q ed25519
}

wait_host() { # NAME
  local deadline=$((SECONDS + BOOT_SECONDS)) state=
  while ((SECONDS < deadline)); do
    state=$(inside "$1" systemctl is-system-running 2>/dev/null) || true
    case $state in
      running | degraded) answers_ssh "$1" && return ;;
    esac
    sleep 0.1
  done
  die "$1 did not boot (last state: ${state:-none}): see $(host_dir "$1")/console.log"
}

stop_host() { # NAME: SIGKILL its init, with which the kernel ends the whole PID namespace
  local dir pid i; dir=$(host_dir "$1"); pid=$(init_pid "$1")
  if [[ -n $pid ]]; then kill -KILL "$pid"; fi
  for ((i = 0; i < 100; i++)); do [[ -n $(supervisor_pid "$1") ]] || break; sleep 0.05; done
  rm -f "$dir/pid"
  for i in root disk; do if mountpoint -q "$dir/$i"; then umount "$dir/$i"; fi; done
  [[ -z $(losetup --associated "$dir/disk.img") ]] || die "$1: its disk is still in use"
  remove_cgroups "$1"
}

# ---- faults ------------------------------------------------------------------------------------

heal() { # NAME
  ip -n "$(hub_ns)" link set "$1" up
  ip netns exec "$(hub_ns)" nft delete table netdev "fault_$1" 2>/dev/null || true
  ip netns exec "$(host_ns "$1")" nft delete table netdev "fault_$1" 2>/dev/null || true
  tc -n "$(hub_ns)" qdisc delete dev "$1" root 2>/dev/null || true
  tc -n "$(host_ns "$1")" qdisc delete dev eth0 root 2>/dev/null || true
}

# nft on ingress of both ends of the cable: no netem in the kernel is needed.
lossy() { # NAME PERCENT
  [[ ${2:-} =~ ^[0-9]+$ && $2 -le 100 ]] || die "lossy NAME PERCENT"
  local end ns dev
  for end in "$(hub_ns) $1" "$(host_ns "$1") eth0"; do
    read -r ns dev <<<"$end"
    ip netns exec "$ns" nft -f - <<NFT
table netdev fault_$1 {
  chain ingress {
    type filter hook ingress device "$dev" priority 0; policy accept;
    meta protocol ip numgen random mod 100 < $2 drop
  }
}
NFT
  done
}

slow() { # NAME RATE
  tc -n "$(hub_ns)" qdisc replace dev "$1" root tbf rate "$2" burst 16kb latency 500ms
  tc -n "$(host_ns "$1")" qdisc replace dev eth0 root tbf rate "$2" burst 16kb latency 500ms
}

# ---- commands ----------------------------------------------------------------------------------

up() {
  COUNT=${1:-}
  [[ $COUNT =~ ^[0-9]+$ && $COUNT -ge 1 && $COUNT -le 200 ]] || die "up N, 1 to 200"
  [[ -n $STATE ]] || STATE=$(mktemp -d)
  mkdir -p "$STATE"; IMAGE=${IMAGE:-$STATE/image}
  [[ ! -e $STATE/prefix ]] || die "a set is up in $STATE; take it down first"
  printf '%s\n' "$PREFIX" >"$STATE/prefix"
  build_image
  [[ -e $STATE/id ]] || ssh-keygen -q -t ed25519 -N '' -C test -f "$STATE/id"
  make_network
  # Shared, so that an unmount here reaches the copies that nspawn's mount namespaces hold; otherwise
  # a disk stays busy as long as any host lives that was started after it.
  mkdir -p "$STATE/hosts"; mount --bind "$STATE/hosts" "$STATE/hosts"; mount --make-shared "$STATE/hosts"
  local i
  for ((i = 1; i <= COUNT; i++)); do make_host "h$i"; start_host "h$i"; done
  for ((i = 1; i <= COUNT; i++)); do wait_host "h$i"; done
  printf 'STATE=%s\n' "$STATE"
}

down() {
  need_state
  local name
  for name in $(hosts); do stop_host "$name" & done
  wait
  for name in $(hosts); do
    if [[ -e /run/netns/$(host_ns "$name") ]]; then ip netns delete "$(host_ns "$name")"; fi
    rm -rf "$(host_dir "$name")"
  done
  if [[ -e /run/netns/$(hub_ns) ]]; then ip netns delete "$(hub_ns)"; fi
  rm -rf "/etc/netns/$(hub_ns)"
  if mountpoint -q "$STATE/hosts"; then umount "$STATE/hosts"; fi
  rm -f "$STATE/known_hosts" "$STATE/prefix"
}

list() {
  local name pid state
  for name in $(hosts); do
    pid=$(init_pid "$name")
    if [[ -n $pid ]]; then state=$(inside "$name" systemctl is-system-running) || true; else state=down; fi
    printf '%s\t%s\t%s\t%s\n' "$name" "$(address "$name")" "${pid:--}" "$state"
  done
}

inventory() {
  local name
  printf '[hosts]\n'
  for name in $(hosts); do printf '%s ansible_host=%s\n' "$name" "$(address "$name")"; done
  printf '[hosts:vars]\nansible_user=%s\nansible_ssh_private_key_file=%s/id\n' "$LOGIN" "$STATE"
  printf 'ansible_ssh_common_args=-o UserKnownHostsFile=%s/known_hosts -o IdentitiesOnly=yes\n' "$STATE"
  printf 'ansible_python_interpreter=/usr/bin/python3\n'
}

powerloss() { # NAME
  xfs_io -x -c shutdown "$(host_dir "$1")/disk"   # ext4 too: from here on nothing reaches the disk
  stop_host "$1"
}

clone() { # NAME OTHER
  need_host "${2:-}"
  [[ -z $(init_pid "$1")$(init_pid "$2") ]] || die "clone: $1 and $2 have to be down"
  cp --sparse=always "$(host_dir "$1")/disk.img" "$(host_dir "$2")/disk.img"
}

command=${1:-}; [[ $# -gt 0 ]] && shift
case $command in
  image) [[ -n $STATE ]] || STATE=$(mktemp -d); IMAGE=${IMAGE:-$STATE/image}; build_image; printf 'IMAGE=%s\n' "$IMAGE" ;;
  up) up "$@" ;;
  down) down ;;
  list | inventory) need_state; "$command" ;;
  hub) need_state; exec ip netns exec "$(hub_ns)" "$@" ;;
  exec) need_state; need_host "${1:-}"; inside "$@" ;;
  ssh)
    need_state; need_host "${1:-}"; name=$1; shift
    exec ip netns exec "$(hub_ns)" ssh -q -i "$STATE/id" -o IdentitiesOnly=yes -o BatchMode=yes \
      -o UserKnownHostsFile="$STATE/known_hosts" "$LOGIN@$(address "$name")" "$@" ;;
  cut) need_state; need_host "${1:-}"; ip -n "$(hub_ns)" link set "$1" down ;;
  heal | lossy | slow | powerloss | clone) need_state; need_host "${1:-}"; "$command" "$@" ;;
  fill) need_state; need_host "${1:-}"; dd if=/dev/zero of="$(host_dir "$1")/disk/filler" bs=1M 2>/dev/null || true ;;
  unfill) need_state; need_host "${1:-}"; rm -f "$(host_dir "$1")/disk/filler" ;;
  kill) need_state; need_host "${1:-}"; stop_host "$1" ;;
  start) need_state; need_host "${1:-}"; start_host "$1"; wait_host "$1" ;;
  *) usage; [[ $command == help || $command == --help ]] ;;
esac
