# Runs on a node and processes the files of a pack, each in its own folder.
#
# command.sh processes one file. pack_command.sh, if it is not empty, processes all files without .exit. The line of
# outputs.txt lists the outputs of a file, and partial.txt contains the name of its partial. After each command, the folders that are finished are
# added to results.tar and partials.tar, so that a later crash does not lose them. If Batch starts the pack again on this
# node, files with .exit are not processed again. Names of outputs never begin with a dot.

process_file() {
  cd "$1" || exit 1
  rm -f stderr.txt
  attempts=0
  status=1
  # Two attempts, as for a file with its own Batch task. A retry does not help if the program rejected the file.
  while [ "$status" -ne 0 ] && [ "$attempts" -lt 2 ] && ! grep -qs '^input error: ' stderr.txt; do
    attempts=$((attempts + 1))
    (. ../command.sh) </dev/null >stdout.txt 2>stderr.txt
    status=$?
  done
  echo "$status $attempts" >.exit
  cd ..
}

# Add finished folders that are not in the archives. The names in the lists contain no spaces.
store() {
  for folder in "$@"; do
    case $stored in *" $folder "*) continue ;; esac
    [ -s "${folder}.exit" ] || continue
    stored="$stored$folder "
    read -r status attempts <"${folder}.exit"
    names=$outputs
    if [ "$status" -ne 0 ]; then
      names="stdout.txt stderr.txt"
      for log in $names; do
        tail -c 4096 "$folder$log" >"${folder}.end" && mv -f "${folder}.end" "$folder$log"
      done
    elif [ -n "$partial" ] && [ -e "$folder$partial" ]; then
      echo "$folder$partial" >&3
    fi
    for name in .exit $names; do
      [ -e "$folder$name" ] && echo "$folder$name"
    done
  done >results.txt 3>partials.txt
  [ -s results.txt ] || return 0
  tar -rf results.tar -T results.txt || exit 1
  [ -z "$partial" ] || tar -rf partials.tar -T partials.txt || exit 1
}

read -r outputs <outputs.txt
read -r partial <partial.txt
stored=" "
# The archives of an earlier start may be cut off.
[ ! -e results.tar ] || rm -f results.tar partials.tar
store */
for next in */; do
  if [ ! -s "${next}.exit" ] && [ -s pack_command.sh ]; then
    (. ./pack_command.sh) </dev/null
    store */
  fi
  # Without a crash, the pack command has finished all files.
  [ -s "${next}.exit" ] || process_file "$next"
  store "$next"
done
