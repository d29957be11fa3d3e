module github.com/cofferfs/coffer

go 1.26
