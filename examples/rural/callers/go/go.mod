module rural/caller

go 1.19
