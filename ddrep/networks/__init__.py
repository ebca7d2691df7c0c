"""Networks on top: what judges, guides and measures images, and the students that learn from them.

`metadata` says what a network must know to be used, which is what its file holds; `architectures` what there is, by
what it is of and what it reads. To add one, declare both.
"""
