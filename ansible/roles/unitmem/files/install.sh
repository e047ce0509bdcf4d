#!/bin/sh
# Install the wheels in VENV/wheels into the virtual environment VENV, and note in it what was installed.
#
#   install.sh VENV WHEEL NOTE REQUIREMENTS [ARGUMENT...]
#
# REQUIREMENTS says where what the wheel requires comes from: `wheels`, the files beside it; `index`, the index that pip is
# set up for; or `present`, they are there. Further arguments are pip's.
set -eu
umask 022
venv=$1 wheel=$1/wheels/$2 note=$3 requirements=$4
shift 4

pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# by force: one that was built anew may have the version that is there
pip --no-deps --force-reinstall "$@" "$wheel"
case $requirements in
    wheels) pip --no-index --find-links="$venv/wheels" --upgrade --upgrade-strategy=eager "$@" "$wheel" ;;
    index) pip --upgrade --upgrade-strategy=eager "$@" "$wheel" ;;
esac
"$venv/bin/unitmem" --version
rm -r "$venv/wheels"
echo "$note" >"$venv/installed"
