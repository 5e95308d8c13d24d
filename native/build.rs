//! Where a module does not link to Python, as it should not, the linker of macOS has to be told so.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
