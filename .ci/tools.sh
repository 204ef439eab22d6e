# shellcheck shell=bash
# Sourced by the checks: tools from Python's package index, which carry their programs.

# install_tools FOLDER REQUIREMENTS: makes a virtual environment with exactly these packages, unless it is there.
install_tools() {
    command -v python3 > /dev/null || { echo 'python3 is needed' >&2; exit 1; }
    if ! cmp -s "$2" "$1/installed.txt"; then
        printf '   %s\n' "installing the tools of $2"
        rm -rf "$1"
        python3 -m venv "$1"
        "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2"
        cp "$2" "$1/installed.txt"
    fi
}
