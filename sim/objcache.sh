#!/bin/sh
# Runs a compiler command; keeps the objects of Verilator's own runtime (verilated*.cpp), which are the
# same for every design and take longer to compile than most of them.
#
# usage: objcache.sh c++ ... -o OBJECT SOURCE      (make's OBJCACHE variable; SOURCE is the last argument)
# SLICEFORGE_OBJCACHE: folder of the kept objects; without it the command is just run.
#
# An object is known by the command line, the compiler's version, the source, all of Verilator's headers and
# VERILATOR_ROOT. Safe under concurrent runs: an object appears complete or not at all.

output=
previous=
for argument; do
    if [ "$previous" = -o ]; then output=$argument; fi
    previous=$argument
done
source=$previous

case ${source##*/} in
    verilated*.cpp) ;;
    *) exec "$@" ;;
esac
if [ -z "$output" ] || [ -z "$SLICEFORGE_OBJCACHE" ] || ! command -v sha256sum >/dev/null; then
    exec "$@"
fi

include=${source%/*}
key=$(
    {
        printf '%s\n' "$VERILATOR_ROOT" "$@"
        "$1" --version
        cat "$source" "$include"/*.h "$include"/*/*.h
    } 2>/dev/null | sha256sum | cut -c1-32
)
name=${source##*/}
kept=$SLICEFORGE_OBJCACHE/${name%.cpp}-$key.o

if [ -f "$kept" ] && cp "$kept" "$output"; then exit 0; fi

"$@" || exit

# The object is there; failing to keep it is no failure.
if mkdir -p "$SLICEFORGE_OBJCACHE" && copy=$(mktemp "$SLICEFORGE_OBJCACHE/copy.XXXXXX"); then
    cp "$output" "$copy" && mv -f "$copy" "$kept" || rm -f "$copy"
fi
exit 0
