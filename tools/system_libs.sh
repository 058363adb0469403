#!/usr/bin/env bash
# Sees to the system libraries that Qt 6 opens windows with, to Xvfb where there is no
# display, and to Python's venv module where there is no uv: installs what is missing on
# a Debian or Ubuntu without a display, as root or through a sudo that asks no password;
# otherwise names it, and succeeds all the same.
set -u
[ "$(uname -s)" = Linux ] || exit 0
PATH="$PATH:/usr/sbin:/sbin"

# What the platform plugins of PyQt6 link to, and the Debian package of each. Looked up
# by file, not by package: Ubuntu 24.04 and Debian 13 renamed libglib2.0-0.
libraries="
libEGL.so.1 libegl1
libGL.so.1 libgl1
libX11-xcb.so.1 libx11-xcb1
libdbus-1.so.3 libdbus-1-3
libfontconfig.so.1 libfontconfig1
libglib-2.0.so.0 libglib2.0-0
libgssapi_krb5.so.2 libgssapi-krb5-2
libxcb-cursor.so.0 libxcb-cursor0
libxcb-glx.so.0 libxcb-glx0
libxcb-icccm.so.4 libxcb-icccm4
libxcb-image.so.0 libxcb-image0
libxcb-keysyms.so.1 libxcb-keysyms1
libxcb-randr.so.0 libxcb-randr0
libxcb-render-util.so.0 libxcb-render-util0
libxcb-render.so.0 libxcb-render0
libxcb-shape.so.0 libxcb-shape0
libxcb-shm.so.0 libxcb-shm0
libxcb-sync.so.1 libxcb-sync1
libxcb-xfixes.so.0 libxcb-xfixes0
libxcb-xkb.so.1 libxcb-xkb1
libxkbcommon-x11.so.0 libxkbcommon-x11-0
"

headless() { [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; }

# Prints the packages that are missing, one a line.
missing() {
  local known library package
  known=$(ldconfig -p)
  while read -r library package; do
    [ -z "$library" ] || grep -qF "$library " <<<"$known" || echo "$package"
  done <<<"$libraries"
  command -v uv >/dev/null || python3 -c 'import ensurepip, venv' 2>/dev/null ||
    echo python3-venv
  if headless; then
    command -v Xvfb >/dev/null || echo xvfb
    command -v xauth >/dev/null || echo xauth
  fi
}

# Runs a command as root; fails where that takes a password.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo -n "$@"
  fi
}

install_packages() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
  as_root true 2>/dev/null || return
  echo "installing what windows need of the system:" "$@"
  as_root "${apt[@]}" update
  as_root "${apt[@]}" install --yes --no-install-recommends "$@" >/dev/null
}

mapfile -t packages < <(missing)
[ ${#packages[@]} -gt 0 ] || exit 0
if headless && command -v apt-get >/dev/null; then
  install_packages "${packages[@]}"
  mapfile -t packages < <(missing)
fi
if [ ${#packages[@]} -gt 0 ]; then
  echo "these are missing, most of them needed by windows (names of Debian and Ubuntu):" \
    "${packages[*]}" >&2
fi
exit 0
