# Sets up .venv for the scripts beside this file, which source it; does nothing when run by itself.
#
# set_up NAME EXTRA   makes .venv with this project and its optional dependencies EXTRA, once; NAME goes into messages.
# use_newest NAME     turns to the second lane: what follows is about .venv-newest, made with the newest Python at hand and
#                     constraints-newest.txt. Returns 1 after one line where there is no such Python.
#
# Every failure is one line on stderr that says what was looked for, what was found, and what to do. What was installed
# is written down in .venv, so a second run starts at once and an interrupted one begins again.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python
constraints=$root/constraints.txt

fail() {
    echo "$1: $2" >&2
    exit 1
}

is_supported() {
    "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

# Prints a Python of a supported version; fails with what was found instead.
find_python() {
    local name found=""
    for name in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.14 python3 python; do
        command -v "$name" >/dev/null || continue
        if is_supported "$name"; then
            command -v "$name"
            return
        fi
        found="$found $name ($("$name" --version 2>&1 | head -n 1))"
    done
    fail "$1" "needs Python 3.11 to 3.14; found:${found:- none}. Install one, or name it: PYTHON=/path/to/python3.11 bash scripts/$1"
}

# Prints the newest Python at hand that the second lane may have: 3.13, else 3.12, by its name or as pyenv keeps it.
find_newest_python() {
    local version candidate
    for version in 3.13 3.12; do
        for candidate in "$(command -v "python$version")" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version"*/bin/python; do
            if [ -x "$candidate" ] && is_supported "$candidate" && "$candidate" -c "import sys, ensurepip
raise SystemExit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
                echo "$candidate"
                return
            fi
        done
    done
    return 1
}

use_newest() {
    local found
    if ! found=$(find_newest_python); then
        echo "$1: the second lane (Python 3.13 or 3.12 with the newest JAX) is skipped: there is no such Python here" >&2
        return 1
    fi
    venv=$root/.venv-newest python=$root/.venv-newest/bin/python constraints=$root/constraints-newest.txt PYTHON=$found
}

# Makes .venv unless a working one of a supported version is there.
make_venv() {
    if [ -e "$venv" ] && ! { [ -x "$python" ] && is_supported "$python" && "$python" -m pip --version >/dev/null 2>&1; }; then
        [ -f "$venv/pyvenv.cfg" ] || fail "$1" "$venv is there but is not a virtual environment; move it away"
        echo "$1: $venv does not work any more (its Python or pip is gone); making it again" >&2
        rm -rf "$venv"
    fi
    [ -e "$venv" ] && return
    local base
    base=$(find_python "$1") || exit 1
    "$base" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$1" "$base has no venv module; on Debian and Ubuntu: apt-get install python$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    echo "$1: making ${venv##*/} with $("$base" --version) ($base)" >&2
    "$base" -m venv "$venv" || { rm -rf "$venv"; fail "$1" "$base -m venv $venv failed (see above)"; }
}

# CKPT_TUNE_NEWEST=1 installs the newest versions that pyproject.toml allows, instead of those of constraints.txt.
set_up() {
    local name=$1 extra=$2 pins=(-c "$constraints") log=$venv/install.log stamp wanted
    make_venv "$name"
    [ -z "${CKPT_TUNE_NEWEST:-}" ] || pins=(--upgrade)
    stamp=$venv/installed-$extra
    wanted=$({ cat "$root/pyproject.toml" "$constraints"; echo "$root ${pins[*]}"; } | cksum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    local folder=${venv##*/}
    echo "$name: installing ckpt-tune[$extra] into $folder (about 1 GB on disk the first time; log: $folder/install.log)" >&2
    if ! "$python" -m pip install --disable-pip-version-check --no-input -e "$root[$extra]" "${pins[@]}" >"$log" 2>&1; then
        grep -E '^ *(ERROR|error)' "$log" | head -n 3 >&2
        if grep -qiE 'NewConnectionError|ConnectTimeout|Network is unreachable|name resolution|ProxyError|No matching distribution' "$log"; then
            fail "$name" "could not download the dependencies: is there a network, and does pip reach its index? (log: $log); then run this again"
        fi
        fail "$name" "installing failed; the last lines of $log: $(tail -n 2 "$log" | tr '\n' ' ')"
    fi
    echo "$wanted" >"$stamp"
}
