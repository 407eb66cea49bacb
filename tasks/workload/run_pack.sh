# Runs on a node and processes the files of a pack one after the other, each in its own folder.
#
# command.sh is the command, and outputs.txt lists its outputs. A processed folder is added to results.tar at
# once, with the exit code and the number of attempts, so that a later crash does not lose it. If Batch starts the pack
# again on this node, processed folders are skipped. Names of outputs never begin with a dot.

for folder in */; do
  [ -e "${folder}.done" ] && continue
  cd "$folder" || exit 1
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
  names=$(cat ../outputs.txt)
  if [ "$status" -ne 0 ]; then
    names="stdout.txt stderr.txt"
    for log in $names; do
      tail -c 4096 "$log" >.end && mv -f .end "$log"
    done
  fi
  cd ..
  # The names in these lists contain no spaces.
  set -- "${folder}.exit"
  for name in $names; do
    [ -e "$folder$name" ] && set -- "$@" "$folder$name"
  done
  tar -rf results.tar "$@" || exit 1
  : >"${folder}.done"
done
