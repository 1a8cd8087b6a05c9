// One function of the native kernel for another processor, in an emulator: calls come in on standard
// input, with what their pointers point to, and results go out. See emulation.py.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" int softhot_baseline(const void* call);

enum { POINTERS = 11, GRADIENT = 1, LOSS = 2, NORMALIZER = 3, POOL = 10 };

int main() {
  int64_t sizes[POINTERS + 1];  // of what the pointers point to, and of the whole call
  while (fread(sizes, sizeof sizes, 1, stdin) == 1) {
    char call[1024];
    if (sizes[POINTERS] > (int64_t)sizeof call || fread(call, sizes[POINTERS], 1, stdin) != 1) return 1;
    void* given[POINTERS];
    void* own[POINTERS] = {};
    memcpy(given, call, sizeof given);
    for (int i = 0; i < POOL; i++) {
      if (!given[i]) continue;
      if (i == GRADIENT && given[i] == given[0]) {
        own[i] = own[0];
        continue;
      }
      own[i] = malloc(sizes[i]);
      if (fread(own[i], sizes[i], 1, stdin) != 1) return 1;
    }
    memcpy(call, own, sizeof own);
    const int32_t status = softhot_baseline(call);
    fwrite(&status, sizeof status, 1, stdout);
    for (int i = GRADIENT; i <= NORMALIZER; i++)
      if (own[i]) fwrite(own[i], sizes[i], 1, stdout);
    fflush(stdout);
    for (int i = POOL - 1; i >= 0; i--)
      if (i != GRADIENT || own[i] != own[0]) free(own[i]);
  }
  return 0;
}
