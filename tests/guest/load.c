/* dlopen, calls through it, dlclose, and again: code that comes and goes at one place. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    char path[4096];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 32);

    if (len < 0)
        return 1;
    path[len] = 0;
    strcpy(strrchr(path, '/'), "/libanswer.so");
    for (int i = 0; i < 3; i++) {
        void *lib = dlopen(path, i & 1 ? RTLD_LAZY : RTLD_NOW);
        if (!lib) {
            printf("%s\n", dlerror());
            return 1;
        }
        int (*answer)(void);
        *(void **)&answer = dlsym(lib, "answer");
        printf("answer %d", answer());
        printf(" %d\n", answer());
        printf("missing: %d\n", dlsym(lib, "nothing") == NULL);
        dlclose(lib);
    }
    Dl_info info;
    if (dladdr(dlsym(RTLD_DEFAULT, "printf"), &info))
        printf("dladdr %s, %s\n", info.dli_sname, strrchr(info.dli_fname, '/'));
    printf("cos %.15f\n", cos(1.25));
    return 0;
}
