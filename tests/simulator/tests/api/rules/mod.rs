//! The rules that a real Proxmox VE enforces and the faults that befall it, each with a test. `table` says which test covers which.

mod answers;
mod consoles;
mod copies;
mod killed;
mod locks;
mod nodes;
mod outside;
mod removal;
mod requests;
mod rights;
mod storages;
mod table;
mod tasks;
