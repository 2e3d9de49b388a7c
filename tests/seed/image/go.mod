module phoenix-hypervisor.io/seed/image

go 1.26
