//! The stand-in for GitLab's runner.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    std::process::exit(sandbox::standin::gitlab::main(&arguments));
}
