#!/usr/bin/env bash
# Writes what packages take from the program itself: manual.sh PROGRAM FOLDER makes man pages in FOLDER/man and completions for
# bash, zsh and fish.
set -euo pipefail
program=$1 folder=$2
mkdir -p "$folder/man"
"$program" man "$folder/man"
"$program" completions bash >"$folder/forebay.bash"
"$program" completions zsh >"$folder/_forebay"
"$program" completions fish >"$folder/forebay.fish"
