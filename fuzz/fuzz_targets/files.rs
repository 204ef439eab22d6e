//! Files of orders: an order that is understood reads the same when it is written out again, and what is refused says where.

#![no_main]

use std::sync::LazyLock;

use api::http::{error::Code, orders::fuzzing};
use axum::body::Body;
use fuzz::{LATEST, caller, check_problem, choice};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

fuzz_target!(|data: &[u8]| {
    let Some((choice, file)) = choice(data) else { return };
    let (caller, is_csv) = (caller(choice), choice & 2 == 0);
    let import =
        |file: Vec<u8>, is_csv| RUNTIME.block_on(fuzzing::import(Body::from(file), is_csv, caller, LATEST));
    match import(file.to_vec(), is_csv) {
        Ok(rows) => {
            for row in rows {
                match row {
                    Ok(understood) => {
                        let again =
                            import(understood.clone().into_bytes(), false).expect("a file of one row");
                        let [Ok(again)] = &again[..] else { panic!("{understood}: {again:?}") };
                        assert_eq!(*again, understood);
                    }
                    Err(error) => {
                        let codes = [
                            Code::MalformedRequest,
                            Code::ValidationFailed,
                            Code::Forbidden,
                            Code::PayloadTooLarge,
                        ];
                        check_problem(&error, &codes);
                    }
                }
            }
        }
        Err(error) => {
            assert!(is_csv, "lines have no header that can be wrong");
            check_problem(&error, &[Code::MalformedRequest, Code::ValidationFailed]);
        }
    }
});
