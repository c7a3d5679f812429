//! The stand-in for Docker: its program, and, as `docker-standin daemon`, what does the work.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    std::process::exit(sandbox::standin::docker::main(&arguments));
}
