//! Loops of budao that a measurement has shown to need it. Each has a twin in Python with the same contract, and tests hold
//! both to it.

use pyo3::prelude::*;

/// Sends the same bytes to every descriptor, without waiting; answers with who did not take all, by index, and how much they took.
///
/// Whatever goes wrong with one of them counts as nothing taken: whoever owns it finds out when it writes the rest.
/// Free of the GIL while it loops, so the descriptors must stay open meanwhile.
#[pyfunction]
fn send_all(py: Python<'_>, descriptors: Vec<i32>, data: &[u8]) -> Vec<(usize, usize)> {
    py.detach(|| {
        let mut short = Vec::new();
        for (index, &descriptor) in descriptors.iter().enumerate() {
            let taken = loop {
                // SAFETY: the pointer and the length are those of one borrowed slice; a bad descriptor is answered with EBADF.
                let sent = unsafe {
                    libc::send(
                        descriptor,
                        data.as_ptr().cast(),
                        data.len(),
                        libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                    )
                };
                if sent >= 0 {
                    break sent as usize;
                }
                if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
                    break 0;
                }
            };
            if taken < data.len() {
                short.push((index, taken));
            }
        }
        short
    })
}

#[pymodule(gil_used = false)]
fn budao_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(send_all, module)?)
}
