// The least that an HTTP answer costs on this machine: one thread with epoll that reads whatever has arrived, looks at
// none of it and writes the same answer of a status, three fields and BODY_BYTES, which is what a node sends for a value.
// Each read counts as one request, so it is a floor for clients that do not pipeline.
//
// With several ports it stands in for as many nodes, where a router has to find somebody alive.
//
//   http_floor PORT ...
#define _GNU_SOURCE  // accept4
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BODY_BYTES = 100, EVENTS_MAX = 128, BACKLOG = 1024, PORTS_MAX = 1000 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
  if (fd < 0) fail("socket");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in here = {0};
  here.sin_family = AF_INET;
  here.sin_port = htons(port);
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0) fail("bind");
  if (listen(fd, BACKLOG) < 0) fail("listen");
  return fd;
}

static void watch(int queue, int fd) {
  struct epoll_event interest = {.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(queue, EPOLL_CTL_ADD, fd, &interest) < 0) fail("epoll_ctl");
}

static void take_connections(int queue, int listener) {
  int yes = 1, fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(queue, fd);
  }
}

int main(int argc, char **argv) {
  if (argc < 2 || argc - 1 > PORTS_MAX) {
    fprintf(stderr, "usage: http_floor PORT ..., at most %d of them\n", PORTS_MAX);
    return 2;
  }
  char answer[512], request[16384];
  int size = snprintf(answer, sizeof answer,
                      "HTTP/1.1 200 OK\r\ncontent-length: %d\r\netag: \"0000000000000000\"\r\nkv-version: 0000000000000000\r\n\r\n",
                      BODY_BYTES);
  memset(answer + size, 'v', BODY_BYTES);
  size += BODY_BYTES;

  int queue = epoll_create1(0), last_listener = 0;
  // Descriptors are given out in order, so that whatever is not above the last of these is a listener.
  for (int i = 1; i < argc; i++) watch(queue, last_listener = listen_on(atoi(argv[i])));
  struct epoll_event events[EVENTS_MAX];
  for (;;) {
    int count = epoll_wait(queue, events, EVENTS_MAX, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd <= last_listener) {
        take_connections(queue, fd);
      } else if (read(fd, request, sizeof request) <= 0 || write(fd, answer, size) != size) {
        close(fd);
      }
    }
  }
}
