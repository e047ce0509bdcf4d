"""What unitmem costs and how quickly it acts, beside its peers: `make bench`.

`__main__` runs on the host: it brings up a guest, carries this package there, asks one question after the other, prints
the tables and keeps them. `inside` and `questions/` run in the guest, as root: a file for each question.
"""
