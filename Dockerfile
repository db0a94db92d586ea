# The sample backend over shadow, for docker-compose.yml.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY docs ./docs
COPY shadow ./shadow
RUN pip install --no-cache-dir . && useradd --system shadow && install --directory --owner=shadow /app/var
USER shadow
EXPOSE 8000
CMD ["uvicorn", "--factory", "shadow.embedded.notesllm.server:build", "--host", "0.0.0.0", "--port", "8000"]
