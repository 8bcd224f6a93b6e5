"""The source of the real Istio that tests run under, ready to be built: `make istio-peers`.

Downloads the pinned module (the `go` command verifies it, and the hash here is the second key), copies it to where it
can be changed, and makes the one change that lets istiod run without a Kubernetes client: `pilot-discovery --registries
"" --configDir DIR` dereferences the client it was told not to have at one place of its service entry controller. Fails
when that statement is not there any more, so that a newer Istio is looked at and not silently built unpatched.

    python tools/istio_source.py OUTPUT_DIRECTORY
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

MODULE = "istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad"
SUM = "h1:ui9TJjRMAV/hb5ehQaZDq7IUGxuQP6dra9lapT/VjHI="
FILE = "pilot/pkg/serviceregistry/serviceentry/controller.go"
IMPORT = 'v1 "k8s.io/api/core/v1"'
FOUND = "s.inputs.Namespaces = multiclusterController.ConfigCluster().Namespaces()"
INSTEAD = """if multiclusterController == nil {
			named := s.opts.WithName("inputs/Namespaces")
			s.inputs.Namespaces = krt.NewStaticCollection[*corev1.Namespace](nil, nil, named...)
		} else {
			s.inputs.Namespaces = multiclusterController.ConfigCluster().Namespaces()
		}"""


def main(output: Path) -> None:
    told = subprocess.run(["go", "mod", "download", "-json", MODULE], check=True, capture_output=True).stdout
    module = json.loads(told)
    if module["Sum"] != SUM:
        raise SystemExit(f"{MODULE} has the hash {module['Sum']}, not {SUM}")
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(module["Dir"], output, copy_function=shutil.copyfile)
    source = output / FILE
    text = source.read_text()
    if text.count(FOUND) != 1 or text.count(IMPORT) != 1:
        raise SystemExit(f"{FILE} is not as this tool knows it")
    source.write_text(text.replace(FOUND, INSTEAD).replace(IMPORT, f'corev1 "k8s.io/api/core/v1"\n\t{IMPORT}'))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
