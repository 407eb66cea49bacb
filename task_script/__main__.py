"""Run the program: `python3 -m task_script FILE`."""

from task_script.top_words import main

if __name__ == "__main__":
    raise SystemExit(main())
