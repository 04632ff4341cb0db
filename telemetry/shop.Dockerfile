# The example shop, for telemetry/compose.yaml.
FROM python:3.12.9-slim
WORKDIR /shop
COPY . .
RUN pip install --no-cache-dir -c constraints.txt ".[redis,postgresql,pages]" fastapi uvicorn \
    opentelemetry-sdk opentelemetry-exporter-otlp-proto-http
EXPOSE 8000
CMD ["uvicorn", "--factory", "examples.shop.app:create_app", "--host", "0.0.0.0", "--port", "8000"]
