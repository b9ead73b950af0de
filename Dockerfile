# The image that the compose files of a deployment kit name:  docker build -t fedclust .
FROM python:3.11-slim
COPY . /src
# torch first and pinned: left to itself the resolver takes the newest build with gigabytes of CUDA libraries
RUN pip install --no-cache-dir -c /src/constraints.txt torch==2.13.0 \
    && pip install --no-cache-dir -c /src/constraints.txt /src \
    && rm -r /src
USER 1000:1000
CMD ["fedclust", "--help"]
