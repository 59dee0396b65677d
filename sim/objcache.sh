#!/bin/sh
# Runs a compiler command; keeps what is the same for every design, and takes longer to compile than most:
# - the objects of Verilator's own runtime (verilated*.cpp);
# - its headers, precompiled, for a design that is one source (*__ALL.cpp) and cocotb's main program.
#
# usage: objcache.sh c++ ... -o OBJECT SOURCE      (make's OBJCACHE variable; SOURCE is the last argument)
# SLICEFORGE_OBJCACHE: folder of what is kept; without it the command is just run.
#
# All of it is known by the command line, the compiler's version, Verilator's headers and VERILATOR_ROOT, an
# object by its source, too. Safe under concurrent runs: a file appears complete or not at all.

output=
previous=
include=
for argument; do
    if [ "$previous" = -o ]; then output=$argument; fi
    if [ -f "${argument#-I}/verilated_vpi.h" ]; then include=${argument#-I}; fi
    previous=$argument
done
source=$previous

case ${source##*/} in
    verilated*.cpp) kind=object include=${source%/*} ;;
    *__ALL.cpp | verilator.cpp) kind=headers ;;
    *) exec "$@" ;;
esac
if [ -z "$output" ] || [ -z "$include" ] || [ -z "$SLICEFORGE_OBJCACHE" ] || ! command -v sha256sum >/dev/null; then
    exec "$@"
fi

key() {  # of a command line; standard input: more that it depends on
    {
        printf '%s\n' "$VERILATOR_ROOT" "$@"
        "$1" --version
        cat - "$include"/*.h "$include"/*/*.h
    } 2>/dev/null | sha256sum | cut -c1-32
}

# Copies file $1 to $2 of the folder, which shows it complete or not at all. Failing to is no failure.
keep() {
    if copy=$(mktemp "$SLICEFORGE_OBJCACHE/copy.XXXXXX"); then
        cp "$1" "$copy" && mv -f "$copy" "$2" || rm -f "$copy"
    fi
}

if [ $kind = object ]; then
    name=${source##*/}
    kept=$SLICEFORGE_OBJCACHE/${name%.cpp}-$(key "$@" <"$source").o
    if [ -f "$kept" ] && cp "$kept" "$output"; then exit 0; fi
    "$@" || exit
    if mkdir -p "$SLICEFORGE_OBJCACHE"; then keep "$output" "$kept"; fi
    exit 0
fi

# The command without what it compiles.
skip=
for argument; do
    shift
    case $skip$argument in
        -o) skip=-o= ;;
        -o=* | -c | "$source") skip= ;;
        *) set -- "$@" "$argument" ;;
    esac
done

folder=$SLICEFORGE_OBJCACHE/headers-$(key "$@" </dev/null)
header=$folder/verilated_all.h
if [ ! -f "$header.gch" ] && mkdir -p "$folder"; then
    if printf '#include "%s"\n' verilated.h verilated_dpi.h verilated_vpi.h >"$output.h" &&
        "$@" -x c++-header -o "$output.gch" "$output.h"; then
        keep "$output.h" "$header"
        keep "$output.gch" "$header.gch"
    fi
    rm -f "$output.h" "$output.gch"
fi
# A compiler that cannot use the precompiled file reads the header itself.
if [ -f "$header" ]; then set -- "$@" -include "$header"; fi
exec "$@" -c -o "$output" "$source"
