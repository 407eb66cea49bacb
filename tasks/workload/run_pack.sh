# Runs on a node: works on the files of a pack one after the other, each in a folder of its own.
#
# command.sh is the command and outputs.txt names its outputs. A folder is added to results.tar as soon as it is done, with
# its exit status and the number of attempts, so that it is not lost when a later file takes the whole pack down. When
# Batch starts the pack again on this node, folders that are done are left alone. No output's name begins with a dot.

for folder in */; do
  [ -e "${folder}.done" ] && continue
  cd "$folder" || exit 1
  rm -f stderr.txt
  attempts=0
  status=1
  # Twice, as Batch does with a file that has a Batch task of its own; a file that was refused is refused again.
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
  # No name in these lists holds a space.
  set -- "${folder}.exit"
  for name in $names; do
    [ -e "$folder$name" ] && set -- "$@" "$folder$name"
  done
  tar -rf results.tar "$@" || exit 1
  : >"${folder}.done"
done
