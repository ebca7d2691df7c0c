"""Networks on top: what judges, guides and measures images, and the students that learn from them.

`metadata` says what a network must know to be used, which is what its file holds; `architectures` what there is, by
what it is of and what it reads. To add one, declare both. A judge that reads latents is a further value of `Reads`; one
that is no network, such as linear probes, a further model beside JudgeMeta, and a class with `probabilities`.
"""
