/* AVX, AVX2, FMA, F16C, BMI and AVX-512 as far as the machine has them: 256- and 512-bit
 * registers, masks, gathers, zeroing of upper halves, registers 16 to 31. */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static _Alignas(64) uint8_t from[256];

static void show(const char *name, const void *p, size_t size)
{
    uint64_t sum = 0, q;

    for (size_t i = 0; i < size; i += 8) {
        memcpy(&q, (const char *)p + i, 8);
        sum = (sum ^ q) * 0x9e3779b97f4a7c15 + (sum >> 31);
    }
    printf("%-14s %016llx\n", name, (unsigned long long)sum);
}
#define SHOW(name, value)                                                                          \
    do {                                                                                           \
        __typeof__(value) v_ = (value);                                                            \
        show(name, &v_, sizeof v_);                                                                \
    } while (0)

__attribute__((target("avx2,fma,f16c,bmi,bmi2,lzcnt"))) static void avx2(void)
{
    __m256i a = _mm256_loadu_si256((void *)(from + 1)), b = _mm256_load_si256((void *)(from + 64));
    __m256d u = _mm256_cvtepi32_pd(_mm_load_si128((void *)from));
    __m256 x = _mm256_cvtepi32_ps(a);
    __m256i index = _mm256_and_si256(b, _mm256_set1_epi32(31));

    SHOW("vpaddq", _mm256_add_epi64(a, b));
    SHOW("vpmaddubsw", _mm256_maddubs_epi16(a, b));
    SHOW("vpermd", _mm256_permutevar8x32_epi32(a, b));
    SHOW("vpermq", _mm256_permute4x64_epi64(a, 0x39));
    SHOW("vpsllvd", _mm256_sllv_epi32(a, index));
    SHOW("vperm2i128", _mm256_permute2x128_si256(a, b, 0x21));
    SHOW("vpbroadcastb", _mm256_broadcastb_epi8(_mm256_castsi256_si128(a)));
    SHOW("vpgatherdd", _mm256_i32gather_epi32((int *)from, index, 4));
    SHOW("vpgatherqq", _mm256_i64gather_epi64((long long *)from, _mm256_set_epi64x(3, 9, 0, 7), 8));
    SHOW("masked gather", _mm256_mask_i32gather_epi32(a, (int *)from, index, b, 4));
    SHOW("vpmaskmovd", _mm256_maskload_epi32((int *)from, b));
    SHOW("vfmadd231pd", _mm256_fmadd_pd(u, u, _mm256_set1_pd(0.1)));
    SHOW("vfnmsub213ps", _mm256_fnmsub_ps(x, x, x));
    SHOW("vcvtps2ph", _mm256_cvtps_ph(x, 0));
    SHOW("vdivps", _mm256_div_ps(x, _mm256_add_ps(x, _mm256_set1_ps(0.5f))));
    SHOW("vblendvpd", _mm256_blendv_pd(u, _mm256_castsi256_pd(a), _mm256_castsi256_pd(b)));
    SHOW("vpcmpeqb", _mm256_cmpeq_epi8(a, b));
    printf("vpmovmskb %x, vptest %d\n", (unsigned)_mm256_movemask_epi8(a),
           _mm256_testz_si256(a, b));
    uint64_t n = 0x123456789abcdef0;
    printf("pdep %llx pext %llx andn %llx blsr %llx bzhi %llx rorx %llx mulx %llx\n",
           (unsigned long long)_pdep_u64(n, 0xff00ff00ff00ff), (unsigned long long)_pext_u64(n, ~n),
           (unsigned long long)_andn_u64(n, 0xffff), (unsigned long long)_blsr_u64(n),
           (unsigned long long)_bzhi_u64(n, 20), (unsigned long long)(n >> 9 | n << 55), ({
               unsigned long long hi;
               _mulx_u64(n, n, &hi) ^ hi;
           }));
}

/* A 128-bit VEX write clears the upper half, an SSE write keeps it. */
__attribute__((target("avx2"))) static void upper_halves(void)
{
    __m256i out[3];

    __asm__ volatile("vmovdqu %3, %%ymm6\n\t"
                     "vmovdqa %%ymm6, %%ymm7\n\t"
                     "vmovdqa %%ymm6, %%ymm8\n\t"
                     "paddb %%xmm6, %%xmm7\n\t"
                     "vpaddb %%xmm6, %%xmm8, %%xmm8\n\t"
                     "vmovdqu %%ymm7, %0\n\t"
                     "vmovdqu %%ymm8, %1\n\t"
                     "vzeroupper\n\t"
                     "vmovdqu %%ymm6, %2"
                     : "=m"(out[0]), "=m"(out[1]), "=m"(out[2])
                     : "m"(from[5]), "m"(from)
                     : "xmm6", "xmm7", "xmm8");
    show("upper halves", out, sizeof out);
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) static void avx512(void)
{
    __m512i a = _mm512_loadu_si512(from + 3), b = _mm512_load_si512(from + 128);
    __m512i index = _mm512_and_si512(b, _mm512_set1_epi32(31));
    __mmask16 k = _mm512_cmpgt_epi32_mask(a, b);
    __mmask64 bytes = _mm512_cmplt_epu8_mask(a, b);
    _Alignas(64) uint8_t out[64];

    SHOW("vpaddd{k}", _mm512_mask_add_epi32(a, k, a, b));
    SHOW("vpsubb{z}", _mm512_maskz_sub_epi8(bytes, a, b));
    SHOW("vpternlog", _mm512_ternarylogic_epi64(a, b, index, 0x96));
    SHOW("vpermw", _mm512_permutexvar_epi16(a, b));
    SHOW("broadcast", _mm512_add_epi64(a, _mm512_set1_epi64(*(long long *)(from + 8))));
    SHOW("gather", _mm512_mask_i32gather_epi32(a, k, index, from, 4));
    SHOW("compress", _mm512_maskz_compress_epi32(k, a));
    SHOW("rounding", _mm512_mul_round_ps(_mm512_cvtepi32_ps(a), _mm512_cvtepi32_ps(b), 3 | 8));
    memcpy(out, from, sizeof out);
    _mm512_mask_storeu_epi8(out, bytes, a);
    _mm512_mask_i32scatter_epi32(out, 0x1111, _mm512_and_si512(b, _mm512_set1_epi32(7)), b, 4);
    show("stores", out, sizeof out);
    printf("masks %x %llx %x\n", k, (unsigned long long)bytes,
           (unsigned)_kadd_mask16(k, (__mmask16)bytes));
    __asm__ volatile("vmovdqu64 %1, %%zmm31\n\tvpaddq %%zmm31, %%zmm31, %%zmm17\n\t"
                     "vpaddq 64(%2)%{1to8%}, %%zmm17, %%zmm17\n\tvmovdqu64 %%zmm17, %0"
                     : "=m"(out)
                     : "m"(from[9]), "r"(from), "m"(from)
                     : "xmm17", "xmm31");
    show("zmm31", out, sizeof out);
}

int main(void)
{
    for (int i = 0; i < 256; i++)
        from[i] = (uint8_t)(i * 37 + (i >> 3) * 11);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        avx2();
        upper_halves();
    }
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        avx512();
    printf("done\n");
    return 0;
}
