"""Run folders: claiming one, its log, checkpoints and plots, and opening a run again.

`workdir` claims the folder and `logger` writes its log and summary. `checkpoint` saves and restores
checkpoints, with `checkpoint_files` (the files of one), `checkpoint_io` (its arrays),
`checkpoint_record` (the record beside them) and `recovery` (skipping damaged ones). `curves`,
`plots` and `pictures` draw. `restore` rebuilds a run from its folder for the tools.
"""
