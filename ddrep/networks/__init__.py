"""Networks on top: what judges, guides and measures images, and the students that learn from them.

`metadata` says what a network must know to be used, and what its file holds; `architectures` what there is, by what it
is of and what it reads. To add one, declare both. Judges on latents, and judges that are no network (linear probes),
are further members of metadata.JudgeFile.
"""
