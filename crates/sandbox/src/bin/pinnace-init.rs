//! Pid 1 of every sandbox; executed by the spawner from memory.

fn main() {
    pinnace_sandbox::init::main()
}
