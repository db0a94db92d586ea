"""NotesLLM, the sample backend: users upload documents, a worker makes study material of them.

It is an ordinary FastAPI application over a Motor database object, and knows nothing of shadow: `create_app` and
`worker` take whatever has Motor's surface.
"""

from shadow.embedded.notesllm.app import create_app
from shadow.embedded.notesllm.worker import worker

__all__ = ["create_app", "worker"]
