# The virtual environment that deploy/run and tests/run share: .venv at the top of the checkout. Sourced, never run.
#
# The caller sets `root` to the checkout and calls
#     prepare_venv run      for what `interdict` needs (deploy/requirements.lock), or
#     prepare_venv tests    for that and the test tools (tests/requirements.lock, a superset at the same versions).
#
# Three stamps in .venv say what is finished: interdict-run, interdict-tests, interdict-build. A stamp is a digest of
# all that its step depends on, the place of the checkout included; it goes before its step begins and comes back only
# after it is done, so that whatever was interrupted is made again. When the stamps are right, nothing is installed, no
# network is asked and nothing is written.

venv=${root:?}/.venv

say() { printf 'interdict: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# The digest of a step: the checkout's place, the interpreter behind .venv, the words and files given.
digest() {
    { printf '%s\n' "$root" "$(readlink -f "$venv/bin/python")" "$1" && shift && cat "$@"; } | sha256sum
}

digest_of() {
    case $1 in
    run) digest "" "$root/deploy/requirements.lock" ;;
    tests) digest "" "$root/deploy/requirements.lock" "$root/tests/requirements.lock" ;;
    build)
        # The compiler is part of it: one that is installed later is put to use by the next run.
        digest "$(command -v "${CC:-cc}")" "$root/pyproject.toml" "$root/resolver/__init__.py" "$root"/resolver/hot/*.py
        ;;
    esac
}

is_stamped() {
    [ -x "$venv/bin/python" ] && [ -f "$venv/interdict-$1" ] && [ "$(cat "$venv/interdict-$1")" = "$(digest_of "$1")" ]
}

stamp() { digest_of "$1" >"$venv/interdict-$1"; }

is_ready() { is_stamped run && is_stamped "$1" && is_stamped build; }

find_python() {
    without_venv=
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        fail "$without_venv has no venv module; install it (Debian, Ubuntu: apt-get install python3-venv) and run again"
    fi
    fail "no Python 3.11 or newer on PATH; install one (Debian, Ubuntu: apt-get install python3 python3-venv)" \
        "and run again"
}

# Progress bars for a person at a terminal; in a log, errors only.
pip_install() {
    quiet=
    [ -t 2 ] || quiet=--quiet
    "$venv/bin/python" -m pip --disable-pip-version-check install $quiet --no-deps "$@" >&2
}

install_lock() {
    say "installing $1"
    pip_install --require-hashes -r "$root/$1" || fail "pip could not install $1; its own words are above." \
        "The first run needs a package index: the network, or a mirror named in PIP_INDEX_URL. Then run again"
}

build_project() {
    say "installing the project from $root"
    # What an earlier build left must not outlive the source it was made from.
    rm -f "$venv/interdict-build" "$root"/resolver/hot/*.so
    pip_install --no-build-isolation --no-index -e "$root" ||
        fail "pip could not install the project itself; its own words are above. Mend what it names and run again"
    rm -f "$root"/resolver/hot/_*_cy.c
    for source in "$root"/resolver/hot/_*_cy.py; do
        if ! ls "${source%.py}".*.so >/dev/null 2>&1; then
            say "the hot modules run as plain Python, which is slower: no C compiler or no Python headers" \
                "(Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev, rm .venv/interdict-build, run again)"
            return
        fi
    done
    say "the hot modules are compiled"
}

install_all() {
    if ! is_stamped run; then
        python=$(find_python) || exit 1
        say "making .venv with $("$python" --version)"
        rm -f "$venv"/interdict-*
        "$python" -m venv --clear "$venv" >&2 || fail "could not make $venv with $python; its own words are above"
    fi
    if ! is_stamped "$1"; then
        rm -f "$venv/interdict-$1"
        case $1 in
        run) install_lock deploy/requirements.lock ;;
        tests) install_lock tests/requirements.lock ;;
        esac
        stamp run
        stamp "$1"
    fi
    if ! is_stamped build; then
        build_project
        stamp build
    fi
}

prepare_venv() {
    is_ready "$1" && return
    # Two first runs at once: the second waits for the first, then finds all done.
    exec 9<"$root/pyproject.toml"
    if command -v flock >/dev/null && ! flock -n 9; then
        say "waiting for another run that is preparing .venv"
        flock 9
    fi
    is_ready "$1" || install_all "$1"
    exec 9<&-
}
